"""Making a result visible at its destination: whole and at once, or not at all."""
