"""What a teacher LLM knows, how it is asked, and how its knowledge is kept: rules, reasoning, patterns."""
