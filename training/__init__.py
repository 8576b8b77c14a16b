"""How the demo's model was trained."""
