"""What collecting trajectories costs, beside the published loop."""
