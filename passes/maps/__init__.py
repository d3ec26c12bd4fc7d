"""Where maps lie in the image, one row per operator, and what becomes of them when the image or the strides change.

One walk in the order of the graph gives every tensor, axis by axis, its extents in space (`Side`): how many pixels of
the image lie between two samples, how many samples there are, before and after. Numbers and attributes that count
samples follow; what cannot follow is `Stuck`, with the reason.
"""
