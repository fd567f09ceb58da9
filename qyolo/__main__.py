"""python -m qyolo"""

from qyolo.cli.commands import main

if __name__ == "__main__":
    main()
