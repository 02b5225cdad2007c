"""Training of the demo model, stage by stage: see models/train_demo.py."""
