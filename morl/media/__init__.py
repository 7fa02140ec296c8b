"""Images and videos of rows: what names them, what is wrong with them, and their pixels when they are wanted."""
