"""Train, validate or test: `python train.py [experiment=NAME] [group=choice] [key=value]`, `-m` for a sweep."""

from pathlib import Path

from tubelet.launch import main

if __name__ == "__main__":
    main(Path(__file__).parent / "conf")
