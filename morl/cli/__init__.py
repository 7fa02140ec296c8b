"""The command `morl`: one file a command, which parses its options, calls one function of the library, and prints."""
