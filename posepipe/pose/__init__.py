"""Initial poses: how the head lies, from any orientation.

- :func:`~posepipe.pose.initial.initial_pose`: the pose by one of the methods, and the choice among hypotheses.
- :mod:`~posepipe.pose.search`: over all rotations, without networks; :mod:`~posepipe.pose.multistart`: where that is in doubt.
- :mod:`~posepipe.pose.coordinate_networks`: posepipe's own networks; :mod:`~posepipe.pose.paper_networks`: those of Salehi et al. 2018.
- :mod:`~posepipe.pose.hypothesis`: poses found, and how they are ranked.
"""
