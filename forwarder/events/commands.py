"""Credentials in commands: which words of an argument list to hide, also inside `sh -c "…"`.

What `credentials.mask` finds in any text is found here too; besides, this module knows where programs take their
passwords: behind `--password`, in `mysql -pSECRET`, `curl -u user:SECRET`, `redis-cli AUTH SECRET`, and what is piped into
`chpasswd` or `base64 -d`.
"""

import re
from collections.abc import Sequence
from typing import Final

from forwarder.events.credentials import REDACTED, mask, sensitive

MAX_ARGUMENTS: Final = 256  # of one command; a person types a dozen
MAX_ARGUMENT_CHARS: Final = 32 << 10  # of one argument; scripts of a few kilobytes are passed inline, not longer ones
_MAX_NESTING: Final = 4  # sh -c inside sh -c; what is quoted deeper is hidden as a whole

_MYSQL = ("mysql", "mysqldump", "mysqladmin", "mysqlimport", "mysqlcheck", "mysqlshow", "mysqlsh")
_MARIADB = ("mariadb", "mariadb-dump", "mariadb-admin", "mariadb-import", "mariadb-check", "mariadb-show")
_MONGO = ("mongo", "mongosh", "mongodump", "mongorestore", "mongoexport", "mongoimport", "mongostat", "mongotop")
_LDAP = ("ldapsearch", "ldapadd", "ldapmodify", "ldapdelete", "ldappasswd", "ldapwhoami", "ldapcompare", "ldapmodrdn")
_REDIS = ("redis-cli", "valkey-cli", "keydb-cli")
_HTTP = ("curl", "http", "https", "wget")
_DASH_P = ("cqlsh", "cypher-shell", "rabbitmqadmin", "elasticsearch-users", "7z", "7za", "7zr")
_ORACLE = frozenset({"sqlplus", "sqlldr", "expdp", "impdp"})

_PASSWORD_FLAGS: Final[dict[str, str]] = {
    **dict.fromkeys(
        (*_MYSQL, *_MARIADB, *_MONGO, *_DASH_P, "sshpass", "login"), "-p"
    ),  # `docker login -p`, `az login -p`
    **dict.fromkeys(_LDAP, "-w"),
    **dict.fromkeys(_REDIS, "-a"),
    **dict.fromkeys(("sqlcmd", "bcp", "tsql", "zip", "unzip", "ipmitool", "mosquitto_pub", "mosquitto_sub"), "-P"),
    **dict.fromkeys(("put-parameter", "keyvault"), "--value"),  # of aws ssm and az
    "openssl": "-k",
}
"""Programs whose short flag is followed, or at once continued, by a password. For others `-p` is a port or a path."""

_USER_FLAGS: Final = re.compile(r"-[a-zA-Z#0-9]{0,8}[uU]|--user|--proxy-user")
_USER_PREFIX: Final = re.compile(
    r"-[fgikLnNOqsSvV#0-46]{0,8}[uU]|--user=|--proxy-user="
)  # behind flags without a value
_TAKE_USER: Final = frozenset((*_HTTP, "smbclient", "lftp", "etcdctl", "ctr"))
"""Programs whose flag for the user takes `user:password` (smbclient `user%password`, lftp `user,password`)."""

_MORE_USER_FLAGS: Final = {
    "curl": ("-E", "--cert", "--proxy-cert"),
    "http": ("-a",),
    "https": ("-a",),
}  # `file:password`
_CREDS: Final = re.compile(r"(--(?:src-|dest-)?creds)(?:=(.*))?", re.DOTALL)  # crictl, skopeo, podman

_ALL_BEHIND: Final = {
    **dict.fromkeys(_REDIS, frozenset({"auth", "requirepass", "masterauth", "acl"})),
    **dict.fromkeys(("mysqladmin", "mariadb-admin"), frozenset({"password"})),
    "gcloud": frozenset({"activate-refresh-token"}),
    "mc": frozenset({"set", "add"}),
    "neo4j-admin": frozenset({"set-initial-password"}),
    "rclone": frozenset({"obscure"}),
    "rabbitmqctl": frozenset({"add_user", "change_password", "authenticate_user"}),
    "vault": frozenset({"login", "unseal"}),
    "htpasswd": frozenset({"-b", "-nb", "-bn", "-cb", "-bc", "-nbb", "-bnb"}),
}
"""Programs with a word behind which every argument is hidden."""

_SHELLS: Final = frozenset({"sh", "bash", "ash", "dash", "zsh", "ksh", "busybox", "su", "runuser", "script", "flock"})
_COMMAND_FLAG = re.compile(r"-[a-z]{0,8}c|--command")
"""What stands behind `sh -c` is a script, whatever it begins with: `TOKEN=x; rm -rf /` is not one long token to hide."""

_FLAG = re.compile(r"-[A-Za-z]|--[a-z][a-z0-9-]{0,40}+(?:=.*)?", re.DOTALL)
_ASSIGNMENT = re.compile(r"(-{0,2}[A-Za-z_][\w.-]{0,128}+)(\+?=)(.*)", re.DOTALL)
_OPTION = re.compile(r"--?[A-Za-z][\w-]{1,64}+")
_HEADER = re.compile(r"\s*([\w-]{1,64}+)\s*:", re.DOTALL)
_ORACLE_LOGIN = re.compile(r"([A-Za-z]\w{0,127})/([^@]+)(@.*)?", re.DOTALL)
_NEEDS_SHELL = re.compile(r"[\s;&|()`<>]")

# One word, one operator or one gap of a shell script. Quotes that never close reach to the end.
_TOKEN = re.compile(
    r"(?P<gap>[ \t\r]++)|(?P<operator>[\n;&|()`<>]++)"
    r"|(?P<word>(?:[^\s;&|()`<>'\"\\]++|\\.?|'[^']*+'?|\"(?:[^\"\\]++|\\.?)*+\"?|[^\S \t\r\n]++)++)",
    re.DOTALL,
)
_QUOTED_PART = re.compile(r"'([^']*+)'?|\"((?:[^\"\\]++|\\.?)*+)\"?|\\(.?)", re.DOTALL)
_ESCAPED = re.compile(r"\\([$`\"\\\n])")
_SPECIAL = re.compile(r"[$`\"\\]")
_SAFE = re.compile(r"(?:[\w@%+=:,./~-]++|\[redacted\])*+", re.ASCII)

# Scripts that feed a credential to a program: its literals are credentials.
_DECODES = re.compile(
    r"\b(?:base64|openssl)\b[^|;\n]{0,80}\s-{1,2}d|\bbase64\b[^|;\n]{0,80}\s-D|\bbase32\b[^|;\n]{0,80}\s-{1,2}d"
)
_ENCODED_WORD = re.compile(r"[A-Za-z0-9+/=_-]{8,}+")
_READS_PASSWORD = re.compile(
    r"\bchpasswd\b|\bpasswd\b|-stdin\b|\bsudo\s{1,8}-\w{0,8}S|-fd[ =]0\b|\.pgpass\b|\.netrc\b|['\"\s]AUTH\s"
)
_HERE_DOCUMENT = re.compile(
    r"((?<!<)<<-?[ \t]{0,8}['\"]?(\w{1,32})['\"]?(?!\w)[^\n]{0,512}\n).*?(?=\n\s{0,32}\2\b|\Z)", re.DOTALL
)
_HERE_STRING = re.compile(r"(<<<[ \t]{0,8})(?:'[^']*+'?|\"[^\"]*+\"?|[^\s;&|]++)")
_PRINTERS: Final = frozenset({"echo", "printf", "print"})


def arguments(argv: Sequence[str], depth: int = 0) -> list[str]:
    """The arguments of one simple command, each with its credentials hidden; at most MAX_ARGUMENTS of them."""
    hidden: list[str] = []
    programs: set[str] = set()
    expected = ""  # what the word before says about this one: secret, user, header, literal, script, or all to the end
    for word in argv[:MAX_ARGUMENTS]:
        if expected == "all":
            hidden.append(REDACTED)
            continue
        taken, expected = expected, ""
        if taken == "secret" and not _FLAG.fullmatch(word):
            hidden.append(REDACTED)
        elif taken == "user":
            hidden.append(_without_password(word))
        elif taken == "header":
            hidden.append(_header(word))
        elif taken == "literal":
            hidden.append(_literal(word))
        elif taken == "script":
            hidden.append(_text(word, depth))
        else:
            programs.add(word.rpartition("/")[2].lower())
            shown, expected = _argument(word, programs, depth)
            hidden.append(shown)
    return hidden


def _argument(word: str, programs: set[str], depth: int) -> tuple[str, str]:
    """(the word as it may be shown, what the next word is)."""
    for program in programs & _PASSWORD_FLAGS.keys():
        flag = _PASSWORD_FLAGS[program]
        if word == flag:
            return word, "secret"
        if word.startswith(flag) and program != "openssl":  # its long options have one dash: -keyout
            return flag + REDACTED, ""
    for program in programs & _ALL_BEHIND.keys():
        if word.lower() in _ALL_BEHIND[program]:
            return word, "all"
    if match := _CREDS.fullmatch(word):
        return (word, "user") if match[2] is None else (f"{match[1]}={_without_password(match[2])}", "")
    if any(program in programs and word in flags for program, flags in _MORE_USER_FLAGS.items()):
        return word, "user"
    if not programs.isdisjoint(_TAKE_USER):
        if _USER_FLAGS.fullmatch(word):
            return word, "user"
        if prefix := _USER_PREFIX.match(word):
            return prefix.group() + _without_password(word[prefix.end() :]), ""
        if word == "-b":  # cookies
            return word, "literal"
    if _COMMAND_FLAG.fullmatch(word) and not programs.isdisjoint(_SHELLS):
        return word, "script"
    if word in ("-H", "--header"):
        return word, "header"
    if _OPTION.fullmatch(word) and sensitive(word):
        return word, "secret"
    # aws configure set aws_secret_access_key …; npm config set //registry/:_authToken …
    if (("aws" in programs and word.startswith("aws_")) or ("npm" in programs and "/:_" in word)) and sensitive(word):
        return word, "secret"
    if not programs.isdisjoint(_ORACLE) and (match := _ORACLE_LOGIN.fullmatch(word)):
        return f"{match[1]}/{REDACTED}{match[3] or ''}", ""
    if "vault" in programs and not programs.isdisjoint(("put", "patch", "write")) and not word.startswith("-"):
        return _literal(word), ""
    if match := _ASSIGNMENT.fullmatch(word):
        name, equals, value = match.groups()
        if sensitive(name):
            return f"{name}{equals}{REDACTED}", ""
        if name == "--header":
            return f"{name}={_header(value)}", ""
        if name == "--from-literal":  # kubectl create secret
            return f"{name}={_literal(value)}", ""
    return _text(word, depth), "literal" if word == "--from-literal" else ""


def _literal(word: str) -> str:
    """`key=value`, of a new Kubernetes secret or of a cookie; without a value it is the name of a file."""
    key, equals, _ = word.partition("=")
    return f"{key}={REDACTED}" if equals else mask(word)


def _text(word: str, depth: int) -> str:
    """A word without a meaning of its own: plain, or a script."""
    if len(word) > MAX_ARGUMENT_CHARS:
        return REDACTED
    word = mask(word)
    if not _NEEDS_SHELL.search(word):
        return word
    return _script(word, depth + 1) if depth < _MAX_NESTING else REDACTED


def _without_password(word: str) -> str:
    mark = next((mark for mark in ":%," if mark in word), ":")
    user, mark, _ = word.partition(mark)
    return f"{user}{mark}{REDACTED}" if mark else mask(word)


def _header(word: str) -> str:
    name = _HEADER.match(word)
    return f"{name.group(1)}: {REDACTED}" if name and sensitive(name.group(1)) else mask(word)


def _script(script: str, depth: int) -> str:
    """A shell script with the credentials of its commands hidden; all else stays as it was written."""
    decodes = bool(_DECODES.search(script))
    feeds = bool(_READS_PASSWORD.search(script))
    if feeds and "<<" in script:
        script = _HERE_STRING.sub(rf"\1{REDACTED}", _HERE_DOCUMENT.sub(rf"\1{REDACTED}", script))
    shown: list[str] = []
    places: list[int] = []  # where the words of the present command stand in `shown`
    for match in _TOKEN.finditer(script):
        shown.append(match.group())
        if match.lastgroup == "word":
            places.append(len(shown) - 1)
        elif match.lastgroup == "operator" and match.group().strip("<>"):
            _simple(shown, places, depth, decodes, feeds)
            places = []
    _simple(shown, places, depth, decodes, feeds)
    return "".join(shown)


def _simple(shown: list[str], places: list[int], depth: int, decodes: bool, feeds: bool) -> None:
    """Hide the credentials of one simple command of a script, in place."""
    words = [_unquoted(shown[place]) for place in places]
    hidden = arguments(words, depth)
    hidden += [REDACTED] * (len(words) - len(hidden))
    prints = bool(words) and words[0].rpartition("/")[2] in _PRINTERS
    for number, (place, word, safe) in enumerate(zip(places, words, hidden, strict=True)):
        literal = number > 0 and not _FLAG.fullmatch(word)
        if (feeds and prints and literal) or (decodes and literal and _is_encoded(word)):
            shown[place] = REDACTED
        elif safe != word:
            shown[place] = quoted(safe)


def _is_encoded(word: str) -> bool:
    return bool(_ENCODED_WORD.search(word)) and not word.islower()


def _unquoted(word: str) -> str:
    """The value of a shell word, without expansions."""

    def replace(match: re.Match[str]) -> str:
        single, double, escaped = match.groups()
        if single is not None:
            return str(single)
        return _ESCAPED.sub(r"\1", double) if double is not None else str(escaped)

    return _QUOTED_PART.sub(replace, word)


def quoted(word: str) -> str:
    """`word` quoted for a shell where it must be (`[redacted]` need not), in the kind of quotes that reads best."""
    if word and _SAFE.fullmatch(word):
        return word
    if "'" not in word:
        return f"'{word}'"
    return '"' + _SPECIAL.sub(r"\\\g<0>", word) + '"'
