"""What the row of a large model needs: its pictures, a loop to compare with, and the arithmetic of the card."""
