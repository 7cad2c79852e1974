"""What watches a distillation: agreement, health, progress, pictures."""
