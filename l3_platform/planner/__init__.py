"""How to lay a training step over GPUs, before any is rented: memory, time and the best mesh. Free of torch."""
