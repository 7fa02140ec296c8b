"""The built-in verifiers, one file each; none imports another."""
