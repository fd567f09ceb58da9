"""python -m qyolo"""

from qyolo.cli import main

if __name__ == "__main__":
    main()
