"""Pictures as SVG: pure functions from numbers to markup. Colours are classes, so that the style sheet has the themes."""
