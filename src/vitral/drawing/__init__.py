"""One look for everything drawn: colours, fonts, matplotlib figures, pictures, SVG charts.

Imports storage and below; report, explanation and training may import it.
"""
