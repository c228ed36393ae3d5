"""Other libraries' PPO, each in a virtual environment of its own."""
