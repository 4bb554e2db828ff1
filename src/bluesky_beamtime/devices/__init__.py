"""Hardware to frames: cameras for Bluesky plans that share one store."""

from .accounting import FrameAccount as FrameAccount
from .accounting import FrameSignals as FrameSignals
from .camera import Camera as Camera
from .camera import FrameReceiver as FrameReceiver
from .camera import FrameSource as FrameSource
from .camera import FrameStamp as FrameStamp
from .data_logic import FrameDataLogic as FrameDataLogic
from .data_provider import FrameDataProvider as FrameDataProvider
from .flying import MotorFlyer as MotorFlyer
from .flying import MotorFlyLogic as MotorFlyLogic
from .flying import PointTrajectory as PointTrajectory
from .following import FollowedAxes as FollowedAxes
from .ioc_process import SimIoc as SimIoc
from .pacing import PaceLogic as PaceLogic
from .pacing import SoftwarePacer as SoftwarePacer
from .pacing import Timetable as Timetable
from .paths import OphydPathProvider as OphydPathProvider
from .positions import AxisTrack as AxisTrack
from .pva import PvaCamera as PvaCamera
from .pva_source import PvaSource as PvaSource
from .rings import PowderRings as PowderRings
from .sim import SimCamera as SimCamera
from .sim import SimCounter as SimCounter
from .sim import SimSource as SimSource
from .threads import AcquisitionThread as AcquisitionThread
