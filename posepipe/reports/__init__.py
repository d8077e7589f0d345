"""Pages for readers: figures of a pose, and the page of a subject, self-contained and offline."""
