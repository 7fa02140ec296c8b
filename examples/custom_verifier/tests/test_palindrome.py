from morl_palindrome import palindrome

from morl.testing import check_reward


def test_palindrome_conforms():
    check_reward("palindrome")


def test_letters_of_any_script_count_and_nothing_else():
    assert palindrome("А роза упала на лапу Азора!").value == 1.0
    assert palindrome("12321").value == 0.0
