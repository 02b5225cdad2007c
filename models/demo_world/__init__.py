"""The world of the demo model: its scenes, their pictures and their captions.

`scene.py` defines a scene and chooses random ones, `draw.py` turns a scene into pixels, `caption.py` turns it into
words. Training and tests/quality (its prompts and its evaluator) share these modules.
"""
