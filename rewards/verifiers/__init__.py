"""The built-in verifiers, one file each. No verifier imports another."""
