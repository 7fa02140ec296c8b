"""What a run is made of and how it survives: its parts, folder, checkpoints, interrupts, recovery and health checks."""
