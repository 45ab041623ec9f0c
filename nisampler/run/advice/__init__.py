"""What people ask before a run: cards of any process, what a key means, and whether the installation is complete."""
