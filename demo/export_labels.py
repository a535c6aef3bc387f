"""Write the demo's labelled queries as a table with pictures beside it: `python -m demo.export_labels FOLDER`."""

import argparse
import csv
from pathlib import Path

from rich.console import Console

from demo.queries import DemoQuery, picture_queries, word_queries
from demo.run import SEED

TABLE = "labels.csv"
FULL_GRADE = 3
_COLUMNS = ("query_id", "text", "image", "product_id", "grade")


def main() -> None:
    """Export the queries of the catalogue that `make demo` indexes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--products", type=int, default=500, help="of the catalogue (default %(default)s)")
    parser.add_argument("--pictures", type=int, default=200, help="queries by picture (default %(default)s)")
    options = parser.parse_args()
    count = write_labels(options.folder, SEED, options.products, options.pictures)
    Console().print(f"{count} queries in {options.folder / TABLE}")


def write_labels(folder: Path, seed: int, products: int, pictures: int) -> int:
    """Write the queries by words and by picture, a row for each product with a grade; counts the queries."""
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    queries = [*word_queries(seed, products), *picture_queries(seed, products, pictures)]
    with (folder / TABLE).open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(_COLUMNS)
        for number, query in enumerate(queries):
            query_id, image = f"q{number:04d}", ""
            if query.picture is not None:
                image = f"pictures/{query_id}.jpg"
                (folder / image).write_bytes(query.picture)
            rows = sorted((key, _grade(query, key)) for key in query.grades)
            table.writerows((query_id, query.words or "", image, *row) for row in rows)
    return len(queries)


def _grade(query: DemoQuery, product_id: str) -> int:
    """`FULL_GRADE` for products that share all that was asked, else how much they share."""
    return FULL_GRADE if product_id in query.relevant else query.grades[product_id]


if __name__ == "__main__":
    main()
