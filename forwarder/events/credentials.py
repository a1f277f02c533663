"""What a credential looks like in text: known tokens, `name=value` with a telling name, headers, URLs, random strings.

`mask(text)` replaces each by `[redacted]`; `sensitive(name)` says whether a setting, flag or variable of this name holds
one. When in doubt both hide. Every pattern is linear: it is anchored where a word begins, possessive, or bounded.
"""

import functools
import re
from collections.abc import Callable
from typing import Final

REDACTED: Final = "[redacted]"

# --- names -----------------------------------------------------------------------------------------------------------

_PARTS: Final = (
    "password", "passwd", "passphrase", "passcode", "passin", "passout", "secret", "token", "apikey", "accesskey",
    "privatekey", "signingkey", "encryptionkey", "authkey", "accountkey", "sharedkey", "masterkey", "sshkey",
    "credential", "connectionstring", "authorization", "bearer", "cookie", "jwt", "stringdata",
)  # fmt: skip
_WORDS: Final = frozenset({"pass", "pw", "pwd", "psk", "auth", "sas", "signature", "sig"})
_HARMLESS_ENDINGS: Final = (
    "file", "path", "dir", "name", "names", "ttl", "url", "uri", "type", "stdin", "policy", "length", "lifetime",
    "expiry", "expiration", "enabled", "version", "count", "ref", "namespace", "mount", "algorithm", "audience", "fd",
    "mode", "kubeconfig", "config", "jar", "review", "reviews", "webhook", "plugin", "provider", "issuer",
)  # fmt: skip
_HARMLESS: Final = frozenset({"PWD", "OLDPWD"})  # the shell's working directory; `pwd` in small letters is a password
_NOT_PASS: Final = ("bypass", "compass", "surpass", "underpass", "overpass", "trespass")
_MAX_NAME_CHARS: Final = 128  # longer names do not exist; the end of one says what it holds

_word = re.compile(r"[A-Z]*[a-z0-9]+|[A-Z]+")


def sensitive(name: str) -> bool:
    """Whether a value of this name is a credential: `DB_PASSWORD`, `--api-key`, `clientSecret`; not `--token-file`."""
    if name in _HARMLESS:
        return False
    words = [word.lower() for word in _word.findall(name[-_MAX_NAME_CHARS:])]
    if not words or words[0] == "no":
        return False
    joined = "".join(words)
    if words[-1] in _HARMLESS_ENDINGS or "existing" in words or joined.endswith(_NOT_PASS):
        return False
    if any(part in joined for part in _PARTS) or not _WORDS.isdisjoint(words):
        return True
    return joined.endswith("pass") or (words[-1] == "key" and len(words) > 1)


# --- text ------------------------------------------------------------------------------------------------------------

_TOKENS = re.compile(
    r"-----BEGIN [A-Z0-9 ]{1,64}-----[A-Za-z0-9+/=\s\\:,.]*+(?:-----END [A-Z0-9 ]{1,64}-----)?"  # PEM, even cut
    r"|eyJ[A-Za-z0-9_-]{8,}+(?:\.[A-Za-z0-9_-]*+){0,4}"  # JWT, or any base64 of a JSON object
    r"|(?:AKIA|ASIA)[A-Z0-9]{12,}+"  # AWS
    r"|gh[pousr]_[A-Za-z0-9]{16,}+|github_pat_[A-Za-z0-9_]{16,}+|glpat-[A-Za-z0-9_-]{16,}+"
    r"|xox[a-z]-[A-Za-z0-9-]{8,}+|xapp-[A-Za-z0-9-]{8,}+"
    r"|hooks\.slack\.com/(?:services|workflows|triggers)/[A-Za-z0-9/_-]{8,}+"
    r"|AIza[A-Za-z0-9_-]{30,}+|ya29\.[A-Za-z0-9_-]{16,}+"  # Google
    r"|sk-(?:ant|proj)-[A-Za-z0-9_-]{16,}+|[rs]k_(?:live|test)_[A-Za-z0-9]{8,}+"
    r"|(?:npm|hf|dop_v1|dckr_pat|shpat)_[A-Za-z0-9_-]{20,}+|hv[sb]\.[A-Za-z0-9_-]{16,}+|SG\.[A-Za-z0-9_.-]{32,}+"
    r"|AGE-SECRET-KEY-1[A-Z0-9]{16,}+",
    re.DOTALL,
)
# user:password@ behind `://`. The password may hold a raw slash or at sign, but `host:8080/` is a port.
_USERINFO = re.compile(r"(?<=://)([^\s/:@'\"]{0,256}+):(?!\d{1,5}(?:[/?#\s'\"]|\Z))[^\s'\"]{0,256}@")
_HEADER = re.compile(
    r"(?i)\b((?:proxy-)?authorization(?:\\{0,8}[\"']?\s{0,8}[:=]\s{0,8}+))(?!\[redacted\])(?:[a-z0-9-]{1,32}\s{1,8})?[^\s\"']++"
    r"|\b((?:set-)?cookie(?:\\{0,8}[\"']?\s{0,8}[:=]\s{0,8}+))(?!\[redacted\])[^\s\"';]++(?:;\s{0,8}[^\s\"';=]++=[^\s\"';]*+)*+"
)
_SCHEME = re.compile(r"(?i)\b(bearer|basic|negotiate|apikey)(\s{1,8}+)(?!\[redacted\])[A-Za-z0-9+/=._~:-]{6,}+")
_SQL = re.compile(
    r"(?i)\b(identified(?:\s{1,8}with\s{1,8}\S{1,64})?\s{1,8}(?:by|as)|password(?:\s{1,8}for\s[^=;]{1,128}=)?)"
    r"(\s{1,8})(['\"])(?:(?!\3).)*+\3?"
)
# db.auth("root", "…"), set_password("…"), SQL's PASSWORD('…'): all that stands in the brackets
_CALL = re.compile(r"(?i)\b((?:auth|authenticate|\w{0,32}password)\()(?=\s{0,8}\\{0,8}[\"'])[^)]{1,512}+")
# A name and what stands between it and its value: `=`, `: `, `":"`, `'] = `, `\":\"`.
_PAIR = re.compile(
    r"(?<![\w.-])([\w.-]++)"
    r"(?:\\{0,8}[\"'`]\]?[ \t]{0,8}(?::=?|=>|={1,3})|[ \t]{0,8}(?::=|=>|={1,3}|:(?=[\s\"'\\])))[ \t]{0,8}"
)
_FLAG = re.compile(r"(?<![\w.-])(--?[A-Za-z][\w-]*+)[ \t]{1,8}(?!-)")
_VALUE = re.compile(
    r"\[redacted\]|[A-Za-z_][\w.]{0,64}+\(\s{0,8}([\"'])(?:\\.|(?!\1).)*+\1?"  # crypt('…'
    r"|\\{1,8}\"[^\"]*+|(\"|')(?:\\.|(?!\2).)*+\2?|[\[{][^\]};|]*+[\]}]?|[^\s\"'&;|]++",
    re.DOTALL,
)
_RUN = re.compile(r"[A-Za-z0-9+/_-]{20,}+={0,2}")
_PIECE = re.compile(r"[A-Za-z0-9]{20,}+")
_KIND = re.compile(r"[a-z]+|[A-Z]+|[0-9]+|[^A-Za-z0-9]+")


def mask(text: str) -> str:
    """`text` with every credential that can be recognised replaced by `[redacted]`. Masking twice changes nothing."""
    text = _TOKENS.sub(REDACTED, text)
    if "://" in text:
        text = _USERINFO.sub(rf"\1:{REDACTED}@", text)
    text = _HEADER.sub(lambda match: (match[1] or match[2]) + REDACTED, text)
    text = _SCHEME.sub(rf"\1\2{REDACTED}", text)
    text = _SQL.sub(rf"\1\2\3{REDACTED}\3", text)
    text = _CALL.sub(rf"\1{REDACTED}", text)
    text = _values(_FLAG, text)
    text = _values(_PAIR, text)
    text = _RUN.sub(_checked(_is_random_run), text)
    return _PIECE.sub(_checked(_is_random_piece), text)


HARMLESS_TEXT = re.compile(
    r"(?!.{0,12}eyJ)[\w./-]{0,15}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9-]{10}T[0-9:.]{8,16}Z"
)
"""What no pattern of `mask` can match: a word shorter than any token, a UUID, a moment."""

_REMEMBERED_TEXTS: Final = 16_384  # labels, images, agents: the texts of a cluster come again and again; at most 8 MiB
_REMEMBERED_CHARS: Final = 256


def masked(text: str) -> str:
    """As `mask`, for texts that come again and again: those without a place for a credential pass, short ones are remembered."""
    if HARMLESS_TEXT.fullmatch(text):
        return text
    return _remembered(text) if len(text) <= _REMEMBERED_CHARS else mask(text)


_remembered = functools.lru_cache(maxsize=_REMEMBERED_TEXTS)(mask)


def _values(pattern: re.Pattern[str], text: str) -> str:
    """Hide the value behind each name that `pattern` finds and that is sensitive."""
    parts: list[str] = []
    done = 0
    for match in pattern.finditer(text):
        if match.start() < done or not sensitive(match.group(1)):
            continue
        value = _VALUE.match(text, match.end())
        if value:
            parts += text[done : match.end()], REDACTED
            done = value.end()
    return "".join([*parts, text[done:]]) if parts else text


# --- random strings --------------------------------------------------------------------------------------------------
# Words, paths and Kubernetes names change between small letters, capitals and digits now and then; random base64 does so at
# two of three characters, random hex at every second.


def _checked(is_random: Callable[[str], bool]) -> Callable[[re.Match[str]], str]:
    def replace(match: re.Match[str]) -> str:
        run = match.group()
        digest = match.string.endswith("sha256:", 0, match.start())  # of an image: public, and worth reading
        return REDACTED if is_random(run) and not digest else run

    return replace


def _is_random_run(run: str) -> bool:
    """Base64, also with its `+/=_-`: three kinds of characters, much mixed."""
    if len(run) < 24 or not _has_all_kinds(run):
        return False
    return len(_KIND.findall(run)) >= len(run) / 3


def _is_random_piece(piece: str) -> bool:
    """A long word of letters and digits that nobody made up."""
    changes = len(_KIND.findall(piece)) - 1
    if _has_all_kinds(piece):
        return changes >= len(piece) / 4
    if any(char.isdigit() for char in piece):
        return len(piece) >= 32 and (changes >= 4 or piece.isdigit())
    return len(piece) >= 24 and changes >= len(piece) / 3


def _has_all_kinds(run: str) -> bool:
    return not run.islower() and not run.isupper() and any(char.isdigit() for char in run)
