"""Initial poses, for heads in any orientation.

- :func:`~posepipe.pose.initial.initial_pose`: the pose by one of the methods, and the choice among hypotheses.
- :mod:`~posepipe.pose.search`: search over all rotations, without networks; :mod:`~posepipe.pose.multistart`: multi-start search, used if
  the result of the search has a low score.
- :mod:`~posepipe.pose.coordinate_networks`: posepipe's own networks; :mod:`~posepipe.pose.paper_networks`: those of Salehi et al. 2018.
- :mod:`~posepipe.pose.hypothesis`: candidate poses and their ranking.
"""
