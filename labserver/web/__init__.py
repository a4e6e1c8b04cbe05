"""A page that looks on at a lab, served by the lab's own process: `serve(lab).url`.

- `server.py`: the HTTP server (aiohttp): what is asked for, and what is answered.
- `entrance.py`: who may ask: a token that works once, the secret, and signed addresses.
- `connection.py`: how many connections, for how long, and what isn't HTTP.
- `sessions.py`: a session as a row of the list, and which rows a filter lets through.
- `mail.py`: mailboxes, search, and a message taken apart; `sanitizer.py`: its HTML.
- `reading.py`: all that reads hostile content for the page; it runs in the process of `child.py`.
- `page.html`, `page.css`, `page.js`: the page. It shows what it is given and knows no protocol.

What is asked for, all by GET unless it says POST. An error is `{"error": "one sentence"}`. What is
below `/api/` wants the secret, as `Authorization: Bearer SECRET`. What is marked with * a browser
fetches by itself; it works for a minute without the secret if `/api/signed` has signed it.

    /                       the page; the token behind `#` never reaches the server with it
    /page.css, /page.js, /views.css, /icon.svg
    /api/enter              POST: the token, exchanged for {"secret": …}
    /api/signed             POST: a path with its query, signed: {"address": …}
    /api/lab                the listeners, and what the page can do here
    /api/news *             server-sent events: the newest sessions, then what changes
                            ?protocol= &outcome= &text=
    /api/sessions           older ones: ?below=NUMBER and the same filter
    /api/session            one as a view: ?number= &view=dialogue|sequence|states|wire|times
    /api/session.json *     one as a file, passwords masked: ?number=
    /api/compare            two of them: ?a= &b=
    /api/accounts           addresses with their mailboxes: ?text=
    /api/messages           of a mailbox, newest first: ?account= &mailbox= &below=UID
                            &text= &where=anywhere|subject|from|to|text
    /api/message            one, taken apart: ?account= &mailbox= &uid=
    /api/message/rendered * its HTML, for a sandbox only
    /api/message/part *     one of its parts as a file: &part=
    /api/message/raw *      all of it as a file
    /api/faults             the switches and the rules in force;
                            POST {"name": …, "on": true or false} turns one
    /api/log                POST: a dialogue from elsewhere, as text, read and explained
"""
