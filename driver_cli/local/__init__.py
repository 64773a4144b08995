"""What needs this machine alone: processes of a federation, the demo, the simulation, rounds made again."""
