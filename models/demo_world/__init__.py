"""The world of the demo model: scenes, how they are drawn, how they are said.

`scene.py` says what a scene is and draws random ones from the world's numbers, `draw.py` turns one into
pixels, `caption.py` into words. Training, the evaluator of tests/quality and its prompts share them.
"""
