"""From one framework's model file to another's, checked by running both."""
