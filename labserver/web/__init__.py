"""A page that looks on at a lab, served by the lab's own process: `serve(lab).url`.

- `server.py`: the HTTP server (aiohttp): who may ask, what a browser may do with the answer.
- `sessions.py`: a session as a row of the list, and which rows a filter lets through.
- `mail.py`: mailboxes, search, and a message taken apart.
- `page.html`, `page.css`, `page.js`: the page. It shows what it is given and knows no protocol.

What is asked for, all by GET unless it says POST. An error is `{"error": "one sentence"}`.

    /                       the page; `?token=…` lets a browser in, which then has a cookie
    /page.css, /page.js, /views.css, /icon.svg
    /api/lab                the listeners, and what the page can do here
    /api/news               server-sent events: the newest sessions, then what changes
                            ?protocol= &outcome= &text=
    /api/sessions           older ones: ?below=NUMBER and the same filter
    /api/session            one as a view: ?number= &view=dialogue|sequence|states|wire|times
    /api/session.json       one as a file, passwords masked: ?number=
    /api/compare            two of them: ?a= &b=
    /api/accounts           addresses with their mailboxes: ?text=
    /api/messages           of a mailbox, newest first: ?account= &mailbox= &below=UID
                            &text= &where=anywhere|subject|from|to|text
    /api/message            one, taken apart: ?account= &mailbox= &uid=
    /api/message/rendered   its HTML, for a sandbox only
    /api/message/part       one of its parts as a file: &part=
    /api/message/raw        all of it as a file
    /api/faults             the switches and the rules in force;
                            POST {"name": …, "on": true or false} turns one
    /api/log                POST: a dialogue from elsewhere, as text, read and explained
"""
