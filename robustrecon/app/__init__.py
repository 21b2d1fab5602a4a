"""A page on which to draw, judge and attack; needs the extra `app` (Gradio)."""
