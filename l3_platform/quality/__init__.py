"""Quality scores, knowledge domains and who labels (Llama 3, sections 3.1.1 and 3.1.2)."""
