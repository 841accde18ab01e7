"""The dispatcher: a thin server that speaks the PanDA protocol to pilots and to its operators."""
