"""A few made-up lines in the form of each known set of ratings: names of files, headers, encodings, values."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

USERS, ITEMS = 24, 12
FIRST_SECOND = 1_000_000_000
Rating = tuple[int, int, int]
"""A user, an item, and a number from 0 to 9 that a form turns into a value of its own scale."""

RATINGS: tuple[Rating, ...] = tuple(
    (user, item, (3 * user + 7 * item) % 10)
    for user in range(1, USERS + 1)
    for item in range(1, ITEMS + 1)
    if (user * item) % 3
)
TITLES = dict(
    enumerate(
        (
            "Heat, The (1995)",
            "Caf\u00e9 Noir (1996)",
            '"Great" Cats (1998)',
            "Don't (2001)",
            "Plain",
            "Amour; Toujours",
            "M\u00fcnchen (2005)",
            "A & B",
            "Seven (1995)",
            "Ninth Gate",
            "One | Two",
            "Last; but \\ not least",
        ),
        start=1,
    )
)
STARS = tuple(f"{value / 2:.1f}" for value in range(1, 11))


@dataclass(frozen=True)
class Form:
    """The files of a set, and what they say: ratings as (user, item, value), titles by item, ids as delivered.

    `unrated` has the pairs that were seen without a rating, `missing` the number of cells without a rating.
    """

    files: dict[str, bytes]
    ratings: set[tuple[str, str, float]]
    titles: dict[str, str] = field(default_factory=dict)
    unrated: set[tuple[str, str]] = field(default_factory=set)
    missing: int = 0

    def deliver(self, folder: Path) -> None:
        """Write the files into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in self.files.items():
            (folder / name).write_bytes(content)


def _lines(rows: Iterable[str], end: str = "\n", encoding: str = "utf-8") -> bytes:
    return "".join(row + end for row in rows).encode(encoding)


def _five(level: int) -> int:
    return level // 2 + 1


def _second(user: int, item: int) -> int:
    return FIRST_SECOND + 1_000 * user + item


def _without(titles: dict[int, str], letters: str) -> dict[int, str]:
    """The titles without some characters, which a form cannot hold."""
    return {item: title.translate(str.maketrans("", "", letters)) for item, title in titles.items()}


def ml_100k() -> Form:
    titles = _without(TITLES, "|")
    flags = "|".join("01"[place % 2] for place in range(19))
    return Form(
        {
            "u.data": _lines(f"{u}\t{i}\t{_five(v)}\t{_second(u, i)}" for u, i, v in RATINGS),
            "u.item": _lines(
                (f"{i}|{title}|01-Jan-1995||http://example.org/{i}|{flags}" for i, title in titles.items()),
                encoding="latin-1",
            ),
            "u.user": _lines(
                f"{u}|{20 + u % 30}|{'MF'[u % 2]}|{'writer' if u % 3 else 'other'}|0{u}123" for u in range(1, 25)
            ),
        },
        {(str(u), str(i), _five(v)) for u, i, v in RATINGS},
        {str(i): title for i, title in titles.items()},
    )


def ml_1m() -> Form:
    return Form(
        {
            "ratings.dat": _lines(f"{u}::{i}::{_five(v)}::{_second(u, i)}" for u, i, v in RATINGS),
            "movies.dat": _lines((f"{i}::{title}::Drama|Comedy" for i, title in TITLES.items()), encoding="latin-1"),
            "users.dat": _lines(f"{u}::{'MF'[u % 2]}::{18 + u % 5}::{u % 20}::0{u}123" for u in range(1, 25)),
        },
        {(str(u), str(i), _five(v)) for u, i, v in RATINGS},
        {str(i): title for i, title in TITLES.items()},
    )


def ml_10m() -> Form:
    return Form(
        {
            "ratings.dat": _lines(f"{u}::{i}::{STARS[v].removesuffix('.0')}::{_second(u, i)}" for u, i, v in RATINGS),
            "movies.dat": _lines(f"{i}::{title}::Drama|Comedy" for i, title in TITLES.items()),
            "tags.dat": _lines(f"{u}::{u % 12 + 1}::good::{_second(u, 1)}" for u in range(1, 25)),
        },
        {(str(u), str(i), float(STARS[v])) for u, i, v in RATINGS},
        {str(i): title for i, title in TITLES.items()},
    )


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if set(text) & set(',"\n') else text


def ml_20m() -> Form:
    return Form(
        {
            "ratings.csv": _lines(
                ["userId,movieId,rating,timestamp", *(f"{u},{i},{STARS[v]},{_second(u, i)}" for u, i, v in RATINGS)],
                "\r\n",
            ),
            "movies.csv": _lines(
                ["movieId,title,genres", *(f"{i},{_quoted(title)},Drama|Comedy" for i, title in TITLES.items())], "\r\n"
            ),
            "tags.csv": _lines(
                ["userId,movieId,tag,timestamp", *(f"{u},{u % 12 + 1},fine,{_second(u, 1)}" for u in range(1, 25))]
            ),
            "links.csv": _lines(["movieId,imdbId,tmdbId", *(f"{i},0{i}1234,{i}99" for i in TITLES)]),
        },
        {(str(u), str(i), float(STARS[v])) for u, i, v in RATINGS},
        {str(i): title for i, title in TITLES.items()},
    )


def _isbn(item: int) -> str:
    return f"0{item:08d}X"


def book_crossing() -> Form:
    def escaped(text: str) -> str:
        return text.replace("\\", "\\\\").replace('"', '\\"')

    votes = [f'"{u}";"{_isbn(i)}";"{v}"' for u, i, v in ((u, i, v if v > 4 else 0) for u, i, v in RATINGS)]
    books = [
        f'"{_isbn(i)}";"{escaped(title)}";"Somebody";"1999";"House";"http://a/S";"http://a/M";"http://a/L"'
        for i, title in TITLES.items()
    ]
    users = [f'"{u}";"town {u}, far, away";{"NULL" if u % 2 else chr(34) + "30" + chr(34)}' for u in range(1, 25)]
    return Form(
        {
            "BX-Book-Ratings.csv": _lines(['"User-ID";"ISBN";"Book-Rating"', *votes], "\r\n", "latin-1"),
            "BX-Books.csv": _lines(
                [
                    '"ISBN";"Book-Title";"Book-Author";"Year-Of-Publication";"Publisher";"Image-URL-S";"Image-URL-M";'
                    '"Image-URL-L"',
                    *books,
                ],
                "\r\n",
                "latin-1",
            ),
            "BX-Users.csv": _lines(['"User-ID";"Location";"Age"', *users], "\r\n", "latin-1"),
        },
        {(str(u), _isbn(i), v) for u, i, v in RATINGS if v > 4},
        {_isbn(i): title for i, title in TITLES.items()},
        unrated={(str(u), _isbn(i)) for u, i, v in RATINGS if v <= 4},
    )


def amazon_ratings() -> Form:
    return Form(
        {"ratings_Books.csv": _lines(f"A{u:09d}Z,B00{i:04d}X,{_five(v)}.0,{_second(u, i)}" for u, i, v in RATINGS)},
        {(f"A{u:09d}Z", f"B00{i:04d}X", _five(v)) for u, i, v in RATINGS},
    )


def lastfm_360k() -> Form:
    names = _without(TITLES, "\t")
    names[3] = '"great" cats'
    artists = {i: "" if i == 5 else f"{i:08x}-0000-4000-8000-000000000000" for i in names}
    return Form(
        {
            "usersha1-artmbid-artname-plays.tsv": _lines(
                f"{u:040x}\t{artists[i]}\t{names[i]}\t{(v + 1) * (u + 30)}" for u, i, v in RATINGS
            ),
            "usersha1-profile.tsv": _lines(f"{u:040x}\tf\t22\tGermany\tFeb {u}, 2007" for u in range(1, 25)),
        },
        {(f"{u:040x}", names[i], (v + 1) * (u + 30)) for u, i, v in RATINGS},
    )


def lastfm_hetrec() -> Form:
    return Form(
        {
            "user_artists.dat": _lines(
                ["userID\tartistID\tweight", *(f"{u}\t{i}\t{(v + 1) * (u + 30)}" for u, i, v in RATINGS)], "\r\n"
            ),
            "artists.dat": _lines(
                [
                    "id\tname\turl\tpictureURL",
                    *(f"{i}\t{title}\thttp://a/{i}\thttp://b/{i}.jpg" for i, title in TITLES.items()),
                ],
                "\r\n",
            ),
            "user_taggedartists.dat": _lines(
                [
                    "userID\tartistID\ttagID\tday\tmonth\tyear",
                    *(f"{u}\t{u % 12 + 1}\t13\t1\t4\t2009" for u in range(1, 25)),
                ],
                "\r\n",
            ),
        },
        {(str(u), str(i), (v + 1) * (u + 30)) for u, i, v in RATINGS},
        {str(i): title for i, title in TITLES.items()},
    )


def anime() -> Form:
    shows = [f'{i},{_quoted(title)},"Action, Drama",TV,12,{6 + i / 10},{i}00' for i, title in TITLES.items()]
    return Form(
        {
            "anime.csv": _lines(["anime_id,name,genre,type,episodes,rating,members", *shows]),
            "rating.csv": _lines(
                ["user_id,anime_id,rating", *(f"{u},{i},{v if v else -1}" for u, i, v in RATINGS), "1,4,10"]
            ),
        },
        {(str(u), str(i), v) for u, i, v in RATINGS if v and (u, i) != (1, 4)} | {("1", "4", 10)},
        {str(i): title for i, title in TITLES.items()},
        unrated={(str(u), str(i)) for u, i, v in RATINGS if not v},
    )


def netflix_prize() -> Form:
    def blocks(items: Iterable[int]) -> Iterable[str]:
        for item in items:
            yield f"{item}:"
            yield from (f"{u},{_five(v)},2005-09-{u:02d}" for u, i, v in RATINGS if i == item)

    return Form(
        {
            "combined_data_1.txt": _lines(blocks(range(1, 7))),
            "combined_data_2.txt": _lines(blocks(range(7, ITEMS + 1))),
            "movie_titles.csv": _lines(
                (f"{i},{'NULL' if i == 4 else 1990 + i},{title}" for i, title in TITLES.items()), encoding="latin-1"
            ),
        },
        {(str(u), str(i), _five(v)) for u, i, v in RATINGS},
        {str(i): title for i, title in TITLES.items()},
    )


def retailrocket() -> Form:
    events = [
        f"{1000 * _second(u, i)},{u},{'transaction' if v == 9 else 'view'},{i},{u + i if v == 9 else ''}"
        for u, i, v in RATINGS
    ]
    return Form(
        {
            "events.csv": _lines(["timestamp,visitorid,event,itemid,transactionid", *events, events[0]]),
            "category_tree.csv": _lines(["categoryid,parentid", *(f"{place},{place // 2}" for place in range(1, 30))]),
        },
        {(str(u), str(i), 1 + (place == 0)) for place, (u, i, _) in enumerate(RATINGS)},
    )


def steam_200k() -> Form:
    names = {item: title.replace('"', "") for item, title in TITLES.items()}
    rows = []
    for user, item, level in RATINGS:
        rows.append(f'{user},"{names[item]}",purchase,1.0,0')
        if level > 3:
            rows.append(f'{user},"{names[item]}",play,{level * 31 + user / 10},0')
    return Form(
        {"steam-200k.csv": _lines(rows)},
        {(str(u), names[i], round(1 + (v * 31 + u / 10) * (v > 3), 6)) for u, i, v in RATINGS},
    )


def goodbooks_10k() -> Form:
    books = [
        f'{i},{i}77,{i}77,{i}55,12,97800{i},9.78e+12,"J. Doe, A. Nother",19{i:02d}.0,'
        f"{_quoted(title)},{_quoted(title)},eng,4.1"
        for i, title in TITLES.items()
    ]
    return Form(
        {
            "ratings.csv": _lines(["user_id,book_id,rating", *(f"{u},{i},{_five(v)}" for u, i, v in RATINGS)]),
            "books.csv": _lines(
                [
                    "book_id,goodreads_book_id,best_book_id,work_id,books_count,isbn,isbn13,authors,"
                    "original_publication_year,original_title,title,language_code,average_rating",
                    *books,
                ]
            ),
            "to_read.csv": _lines(["user_id,book_id", *(f"{u},{u % 12 + 1}" for u in range(1, 25))]),
        },
        {(str(u), str(i), _five(v)) for u, i, v in RATINGS},
        {str(i): title for i, title in TITLES.items()},
    )


def jester() -> Form:
    jokes = 25
    cells = {(u, j): round((u * 37 + j * 91) % 2001 / 100 - 10, 2) for u in range(1, 25) for j in range(1, jokes + 1)}
    rated = {place: value for place, value in cells.items() if sum(place) % 4}
    lines = [
        ",".join(
            [str(sum(1 for user, _ in rated if user == u)), *(str(rated.get((u, j), 99)) for j in range(1, jokes + 1))]
        )
        for u in range(1, 25)
    ]
    name = "jester-data-1.csv"
    return Form(
        {name: _lines(lines)},
        {(f"{name}:{u}", str(j), value) for (u, j), value in rated.items()},
        missing=len(cells) - len(rated),
    )


FORMS: dict[str, Callable[[], Form]] = {
    "amazon-ratings": amazon_ratings,
    "anime": anime,
    "book-crossing": book_crossing,
    "goodbooks-10k": goodbooks_10k,
    "jester": jester,
    "lastfm-360k": lastfm_360k,
    "lastfm-hetrec": lastfm_hetrec,
    "ml-100k": ml_100k,
    "ml-10m": ml_10m,
    "ml-1m": ml_1m,
    "ml-20m": ml_20m,
    "netflix-prize": netflix_prize,
    "retailrocket": retailrocket,
    "steam-200k": steam_200k,
}
"""The form of each preset, by its name."""
