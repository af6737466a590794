"""Training losses: pure functions on tensors."""
