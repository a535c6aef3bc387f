"""Train the larger DINOv2 of the demo: `python -m demo.training.dinov2_large --out DIR`."""

from demo.training.dinov2 import Shape, main

LARGE = Shape(width=144, layers=5, heads=4)

if __name__ == "__main__":
    main(shape=LARGE, steps=5000)
