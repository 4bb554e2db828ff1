"""What was in the beam, who was there, and what they noted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from bluesky_beamtime.database import facts
from bluesky_beamtime.database.metadata import Metadata
from bluesky_beamtime.database.notes import Note, add_note, read_notes
from bluesky_beamtime.database.people import Person, all_people, one_or_several
from bluesky_beamtime.database.sample_book import Samples
from bluesky_beamtime.database.samples import SampleMetadata, upsert_sample

if TYPE_CHECKING:
    pass


from bluesky_beamtime.beamtime.parts import Parts


class Describing(Parts):
    """Says what is measured, by whom, and what there is to say about it."""

    @property
    def sample(self) -> SampleMetadata | None:
        """What is in the beam; belongs to the runs that start from now on.

        Set it to a name, a mapping or a
        :class:`~bluesky_beamtime.database.SampleMetadata`. A sample is known by its
        name: what is given is added to what is known. A run whose metadata have a
        ``sample`` belongs to that one.
        """
        return self._sample

    @sample.setter
    def sample(self, value: str | Mapping[str, Any] | SampleMetadata | None) -> None:
        if self._recorder is None:
            raise self._read_only("change the sample")
        if value is None:
            self._sample = self._recorder.sample_id = None
            return
        sample = SampleMetadata.of(value)
        with self._database.writing() as connection:
            self._recorder.sample_id = upsert_sample(connection, sample)
        self._sample = sample

    @property
    def samples(self) -> Samples:
        """Every sample by its name, with what it was before it was changed.

        ``beamtime.samples["LaB6"].history``, ``beamtime.samples["LaB6"].runs``.
        """
        return Samples(self._database, self._journal)

    @property
    def md(self) -> Metadata:
        """Metadata that a RunEngine adds to every run, kept in the file.

        ``RE = RunEngine(beamtime.md)``: what is set is committed at once, survives a
        crash, and is shared by all processes. Its ``scan_id`` never goes back.
        """
        return Metadata(self._database)

    @property
    def proposal(self) -> str | None:
        """Number or name of the proposal; of the runs that start from now on.

        Kept in the file: it holds for every process that records there, until it is
        changed. A run whose metadata have a ``proposal`` belongs to that one.
        """
        with self._database.reading() as connection:
            return facts.read_proposal(connection)

    @proposal.setter
    def proposal(self, value: str | int | None) -> None:
        if self._recorder is None:
            raise self._read_only("change the proposal")
        with self._database.writing() as connection:
            facts.write_proposal(connection, value)

    @property
    def users(self) -> list[Person]:
        """Who measures; of the runs that start from now on.

        Set it to names, mappings or :class:`~bluesky_beamtime.database.Person` objects.
        Kept in the file, as :attr:`proposal` is. A run whose metadata have ``users`` or
        ``user`` belongs to those; an ``operator`` is added to them.
        """
        with self._database.reading() as connection:
            return facts.read_users(connection)

    @users.setter
    def users(
        self, value: Iterable[Person | Mapping[str, Any] | str] | Person | str | None
    ) -> None:
        if self._recorder is None:
            raise self._read_only("change the users")
        people = [Person.of(each) for each in one_or_several(value)]
        with self._database.writing() as connection:
            facts.write_users(connection, people)

    @property
    def people(self) -> list[Person]:
        """Everybody who took part in a run, or is a user."""
        with self._database.reading() as connection:
            return all_people(connection)

    def note(self, text: str, *, author: str | None = None) -> Note:
        """Write something down about the beamtime as a whole.

        Raises
        ------
        DocumentError
            There is no text.
        ReadOnlyError
            The beamtime was opened with ``mode="r"``.
        """
        if self._recorder is None:
            raise self._read_only("take notes")
        with self._database.writing() as connection:
            return add_note(connection, text, author, None)

    @property
    def notes(self) -> list[Note]:
        """What was written down about the beamtime as a whole, the oldest first."""
        with self._database.reading() as connection:
            return read_notes(connection, None)
