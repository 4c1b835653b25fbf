"""What an optimizer step of distillation costs, beside the published step."""
