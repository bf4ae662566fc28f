"""Asking models: replay of logged prompts, and judging of answers, within a budget."""
