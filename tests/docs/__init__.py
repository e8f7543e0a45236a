"""README and docs/ say what is so: their code runs, their links lead somewhere, and the site needs no network."""
