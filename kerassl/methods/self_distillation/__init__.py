"""Self-distillation: predict a teacher's distribution over prototypes."""
