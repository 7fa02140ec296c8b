"""For authors of rewards: the conformance kit, and inputs that a reward must survive."""
