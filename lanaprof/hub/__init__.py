"""The hub: one server that gives every team its tables, by token, and everyone the pictures.

The modules below import a web framework, which is an extra; whoever needs one of them imports it by its own name.

::

    ledger      the hub's own file: tokens, signed-in browsers, audit log
    limits      how much and how often; state holds what routes share, keeping what is asked all the time
    gate        what every request passes: address, token, size, headers, counts
    reading     lists and tables, as JSON
    exchanging  what lies behind push and pull: ids, records, bundles
    bundles     a bundle that came in: unpacked within limits, judged row by row
    pages       what people look at; exploring has the frontier, visiting lets people in, rendering and charts draw
    app         all of it as one application
    serving     the application behind a port
    remotes     the hubs a person knows, with their tokens
    client      a hub as one more database to send to and fetch from
"""
