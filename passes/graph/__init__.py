"""The graph as data: its view, shapes, normal form, order and multiply-adds."""
