"""Models of other libraries, as modules that give logits."""
