"""How the model of the demo was made, and how good it is. Not part of the installed package."""
