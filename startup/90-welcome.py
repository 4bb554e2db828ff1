"""What there is, in a few lines."""

print(beamtime)
number = RE.md.get("scan_id", 0) + 1
print(f"scan {number} comes next; in the beam: {beamtime.sample.name}")
print(f"devices: {' '.join(bl.by_name)}")
print("plans: count scan grid_frames fly_frames snap …")
print("magics: %runs %sample %note %frames %doctor")
