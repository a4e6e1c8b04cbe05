"""What mail servers say in words: tables, and what is found in a line by them.

All looks at a bounded piece of text, and no pattern has a repetition within a repetition, so the
time a line takes grows no faster than the line.
"""

from __future__ import annotations

import re

__all__ = [
    "ADDRESS",
    "ENHANCED",
    "NOT_DELIVERED",
    "addresses_in",
    "is_daemon",
    "reply_in",
    "returned_begins",
    "stage_in",
    "status_in",
]

_ATOM = r"[^\s<>()\[\]\"',;:@\\|{}]"
ADDRESS = re.compile(
    rf"(?<![^\s<>()\[\]\"',;:=|/*{{}}])"
    rf"(?:\"[^\"\s@]{{1,64}}\"|{_ATOM}{{1,64}}(?:@{_ATOM}{{1,64}})?)"
    r"@(?:[^\s<>()\[\]\"',;:@!?&=/*|{}]{1,255}|\[[0-9A-Fa-f.:]{3,60}\])"
)
"""An address, UTF-8 included (RFC 6531), at a word's beginning."""
ENHANCED = re.compile(r"(?<![\d.])([245]\.\d{1,3}\.\d{1,3})(?![\d.]\d)")
"""An enhanced status code (RFC 3463)."""

_CODE = r"(?:4[2-5]\d|5[0-7]\d)"
_SAYS = re.compile(
    rf"(?:\bsaid|\breturned(?: the following)?|\bwas|responded(?: with)?|\bresponse|\bgave|"
    rf"\bresult|\breply|\bmessage|\bwith|\berror(?: code)?|"
    rf"(?:\b|_)code|responsecode|\bfailed|\banswer|"
    rf"\breason|<<<|\bdiagnostic|rejected your message|\bsmtp|\bstatus|\btext|\bto|\bmailbox)"
    rf"[^\w\n]{{0,8}}(?P<reply>{_CODE}(?:[ :,-].*|[\"')\]}}.]|$))",
    re.I,
)
_AT_ONCE = re.compile(rf"[^\w]{{0,6}}(?P<reply>{_CODE}(?:[ :;,-].*|[\"')\]}}.]|$))")
_WITHIN = re.compile(
    rf"(?<![\w.@:/=+-])[#\"'(\[<]?(?P<reply>{_CODE}[ -](?:#?\(?#?[45]\.\d{{1,3}}\.\d{{1,3}}|"
    r"(?!(?:MB|KB|kB|GB|bytes|octets|seconds|minutes|hours|days|times|messages|"
    r"recipients|Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)\b)[\"'<\[(*]{0,3}[^\W\d_]).*)"
)
_NUMBERED = re.compile(rf"\((?P<reply>{_CODE})\)|\bSMTP[ -]?(?:code )?(?P<other>{_CODE})\b", re.I)

_COMMANDS = (
    r"end[ -]of[ -](?:data|message|\.)|end-of-message|message body|\.\.?(?= command)|"
    r"rcpt(?:[ _-]to)?|mail(?:[ _-]from)?|data|ehlo|helo|lhlo|starttls|auth|"
    r"(?:initial )?connection|connect|connecting|greeting|sending data block|body|quit"
)
_STAGE = re.compile(
    r"(?:(?:in reply|in response|reply|response) to(?: the)?|after(?: the)?(?: sending)?(?: a)?"
    r"(?: pipelined)?|\bfailed at|\bduring(?: the)?|"
    r"\bwhile (?:sending|performing|receiving)(?: the)?|response on|"
    r"\brejected (?:at|during|after)|\bstage:|\bcommand:?|\[)"
    rf"[\s\"'(:<]{{1,4}}(?P<stage>{_COMMANDS})(?![\w@])|"
    rf"\[(?P<boxed>rcpt_to|mail_from|data|body|connect|helo|ehlo|greeting|quit)\]|"
    rf"\berror (?:on|from) (?P<on>rcpt to|mail from|data)\b",
    re.I,
)
_AFTER_SENT = re.compile(r">>> ?(?P<verb>rcpt to|mail from|data|ehlo|helo|starttls|auth|\.$)", re.I)
_STAGES = {
    "rcpt": "RCPT",
    "mail": "MAIL",
    "data": "DATA",
    "ehlo": "EHLO",
    "helo": "EHLO",
    "lhlo": "EHLO",
    "starttls": "STARTTLS",
    "auth": "AUTH",
    "initial": "greeting",
    "connection": "greeting",
    "connect": "greeting",
    "connecting": "greeting",
    "greeting": "greeting",
}
_TOLD_OFF = {
    "did not like our rcpt": "RCPT",
    "did not like our mail": "MAIL",
    "did not like our data": "DATA",
    "did not like the end of data": "end of DATA",
    "did not like our hello": "EHLO",
    "refused to talk to me": "greeting",
    "for text command": "end of DATA",
    "for rcpt to command": "RCPT",
    "for mail from command": "MAIL",
    "for data command": "DATA",
    "does not like recipient": "RCPT",
    "but recipient was rejected": "RCPT",
    "but sender was rejected": "MAIL",
    "but my name was rejected": "EHLO",
    "but greeting failed": "greeting",
    "failed on data command": "DATA",
    "failed after i sent the message": "end of DATA",
    "the message was rejected after": "end of DATA",
    "rejected the message content": "end of DATA",
    "error sending message content": "end of DATA",
}


def stage_in(text: str) -> str:
    """What a reply answered, where the words say it; one of `told.STAGES`, or empty."""
    if found := _STAGE.search(text[:_LOOKED_AT]):
        word = (found["stage"] or found["boxed"] or found["on"]).lower()
        first = re.split(r"[ _-]", word)[0]
        return _STAGES.get(first, "end of DATA" if first != "quit" else "")
    if found := _AFTER_SENT.search(text[:_LOOKED_AT]):
        return _STAGES.get(found["verb"].lower().split(" ")[0], "end of DATA")
    lower = text[:_LOOKED_AT].lower()
    return next((stage for words, stage in _TOLD_OFF.items() if words in lower), "")


_SENDER = re.compile(r"\bMAIL FROM:[ \t]{0,3}<([^<>\s]{1,320})>", re.I)
_HELLO = re.compile(r"\b(?:EHLO|HELO) ([A-Z0-9._-]{1,253}[A-Z0-9]|\[[A-F0-9.:]{2,60}\])", re.I)


def sender_in(text: str) -> str:
    """The address in a MAIL command that the words repeat; empty without one."""
    found = _SENDER.search(text[:_LOOKED_AT])
    return found[1] if found else ""


def hello_in(text: str) -> str:
    """The name in an EHLO or HELO command that the words repeat; empty without one."""
    found = _HELLO.search(text[:_LOOKED_AT])
    return found[1] if found else ""


_LOOKED_AT = 4000


def reply_in(text: str) -> str:
    """The reply that stands in a text, from its code on; empty without one."""
    text = text[:_LOOKED_AT]
    for shape in (_AT_ONCE, _SAYS, _WITHIN):
        found = shape.match(text) if shape is _AT_ONCE else shape.search(text)
        if found:
            return _trimmed(found["reply"])
    found = _NUMBERED.search(text)
    return (found["reply"] or found["other"]) if found else ""


_ENDS = re.compile(r" ?\((?:in reply to|during|after|state \d)[^()]{0,80}\)?\W{0,3}$")


def _trimmed(reply: str) -> str:
    for mark in (" >>> ", " <<< ", "##"):
        reply = reply.partition(mark)[0]
    reply = reply.strip()
    if end := _ENDS.search(reply, max(0, len(reply) - 120)):
        reply = reply[: end.start()].strip()
    code, rest = reply[:3], reply[3:]
    if rest[:1] in (":", ";", ",") or (rest and not rest.strip("\"')]}.,;:")):
        rest = rest.lstrip(":;, \"')]}.")
        rest = f" {rest}" if rest else ""
    for opened, closed in ("()", "[]"):
        if rest.endswith(closed) and rest.count(closed) > rest.count(opened):
            rest = rest[:-1]
    # What quoted the reply may have put marks around it.
    for mark in "'\"":
        if rest.endswith(mark) and rest.count(mark) % 2:
            rest = rest[:-1]
    return code + rest


def status_in(text: str) -> str:
    """The enhanced status code that stands in a text, or empty."""
    found = ENHANCED.search(text[:_LOOKED_AT])
    return found[1] if found else ""


def addresses_in(text: str) -> list[str]:
    """The addresses that stand in a text."""
    if "@" not in text:
        return []
    found = (match.rstrip(".-_") for match in ADDRESS.findall(text[:_LOOKED_AT]))
    return [
        address.removeprefix("mailto:").removeprefix("SMTP:").removeprefix("smtp:").strip("*_`")
        for address in found
    ]


_DAEMON = re.compile(
    r"mailer[-_ ]?daemon|post[-_ ]?master|mail delivery|delivery[ -]?(?:sub)?system|mail ?system|"
    r"mail administrat|system administrat|mail-?admin|microsoft exchange|mta[-@. ]|"
    r"(?:double-?)?bounce|non-?deliver|undeliver|delivery-?(?:service|report|status|notif)|"
    r"mail server|mail-?router|mailgateway|mdaemon|autoresponder@.{0,40}amazon|returned mail|"
    r"complaints@.{0,60}amazonses|<>|\bmailer\b|listserv|majordomo",
    re.I,
)


def is_daemon(field: str) -> bool:
    """Whether a mail is from what sends bounces, by its From."""
    return bool(_DAEMON.search(field[:300]))


NOT_DELIVERED = re.compile(
    "|".join(
        (
            # English
            r"undeliver",
            r"\bnon-?deliver",
            r"deliver[a-z]{0,5} (?:status )?(?:has |have )?(?:fail|problem|error|delay)",
            r"fail[a-z]{0,3} (?:to )?(?:deliver|notice|mail)",
            r"returned (?:mail|message|to sender)",
            r"(?:could|can|was|were|has|have|did)(?: ?n[o']t|n't) (?:be(?:en)? )?"
            r"(?:deliver|reach|sent|relay|accept|receiv)",
            r"(?:could|can)(?: ?not|n't) deliver",
            r"unable to (?:deliver|relay|send|complete|connect)",
            r"wasn't (?:deliver|able)",
            r"(?:permanent|fatal|following) (?:fatal )?(?:error|fail)",
            r"\bbounced?\b",
            r"delivery (?:incomplete|attempt|notif|status|report)",
            r"did not (?:reach|receive)",
            r"message (?:blocked|not delivered|was rejected|rejected)",
            r"address not found",
            r"(?:user|mailbox|recipient|account|addressee)[^.]{0,30} (?:unknown|full|disabled|"
            r"not found|unavailable|inactive|does ?n[o']t exist|is over|invalid|no such|exceed)",
            r"(?:unknown|invalid|no such) (?:user|recipient|address|mailbox|host|domain|local part|"
            r"final delivery)",
            r"transcript of session",
            r"qmail-send",
            r"error (?:sending|delivering|message)",
            r"\bnot delivered\b",
            r"mail (?:error|failure)",
            r"failure (?:notice|reasons|delivery|notification)",
            r"delivery has been delayed",
            r"was not relayed",
            r"mail delivery",
            r"recipient rejected",
            r"message status",
            r"nicht zustell",
            r"\bDSN\b",
            r"undelivred",
            r"rejected",
            # German, French, Spanish, Italian, Portuguese, Dutch, Scandinavian, Polish, Czech
            r"unzustellbar",
            r"zustellung",
            r"nicht (?:zugestellt|ausgeliefert)",
            r"fehler",
            r"non remis",
            r"[ée]chec",
            r"non distribu",
            r"n'a pas pu",
            r"impossible de remettre",
            r"no se (?:ha podido|pudo|puede) entregar",
            r"no entregado",
            r"rechazad",
            r"impossibile (?:consegnare|recapitare)",
            r"mancat[oa] (?:recapito|consegna)",
            r"non recapitabil",
            r"não (?:foi|pôde|entreg)",
            r"devolvid",
            r"onbestelbaar",
            r"niet (?:worden )?(?:bezorgd|afgeleverd)",
            r"kunde inte levereras",
            r"ikke leveres",
            r"niedostarcz",
            r"nie (?:można|mogła|została)? ?dostarcz",
            r"nedoru[čc]iteln",
            # Russian, Japanese, Chinese, Korean
            r"не (?:может быть |было |удалось )?доставлен",
            r"не удалось доставить",
            r"недоставлен",
            r"送信できません",
            r"配信(?:できません|エラー|不能|失敗)",
            r"送信(?:エラー|されません)",
            r"エラー",
            r"宛先",
            r"不達",
            r"戻り",
            r"退信",
            r"投递失败",
            r"发送失败",
            r"无法(?:送达|投递)",
            r"未送达",
            r"전송(?: ?실패|되지)",
            r"반송",
        )
    ),
    re.I,
)
"""How servers say that a message wasn't delivered."""

_RETURNED = re.compile(
    r"(?:below th.{1,40} is a copy|(?:this|here) is a copy of|here (?:is|follows) (?:the|your)|"
    r"the following is (?:a copy|the)|(?:the )?(?:body|headers?) of the (?:original |message)|"
    r"received: (?:from|by|\(qmail)|return-path: ?<|x-received: by).*|"
    r"(?:the |your |begin |start of )?(?:(?:original|returned|unsent|undelivered)"
    r"[ -](?:message|mail|e-?mail)|message (?=header|text|body|content|follow))"
    r"(?: ?(?:headers?|text|body|contents?|information|follows?|is|as|below|following|attached|"
    r"returned|here|separate|attachment|start|received)){0,5}(?: ?\(.{0,80}\))?|"
    r"your message reads.{0,20}|"
    r"the (?:first|start|beginning|text) .{0,40}(?:message|mail|sent)(?: follows| below)?|"
    r"en-t[êe]tes .{0,20}message.{0,20}|.{0,20}(?:urspr[üu]nglichen? nachricht).{0,20}|"
    r"encabezados .{0,20}mensaje.{0,20}|intestazioni .{0,20}messaggio.{0,20}|"
    r"cabe[çc]alhos? .{0,30}mensagem.{0,20}|元のメッセージ.{0,20}|オリジナル ?メッセージ.{0,20}|"
    r"原始邮件.{0,20}",
    re.I,
)


def returned_begins(text: str) -> bool:
    """Whether from this line on the message stands that came back."""
    bare = text[:200].strip(" \t-=_*+.:~|<>#")
    return bool(bare) and bool(_RETURNED.fullmatch(bare))
