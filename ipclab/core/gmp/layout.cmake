# What lies in the scheduler's segment, as a number: of the text of the headers that declare it, without comments, so that
# two builds which would read each other's words wrongly have different ones, also where all sizes are the same. It takes
# in the enums, whose values lie there. See gmp_attach.
set(IPCLAB_LAYOUT_HEADERS barrier.h note.h segment.h gmp/runtime2.h gmp/events.h gmp/script.h)

# A literal of C, of the headers under `folder`.
function(ipclab_layout folder result)
  set(all "")
  foreach(header ${IPCLAB_LAYOUT_HEADERS})
    file(READ "${folder}/${header}" text)
    string(REGEX REPLACE "/[*][^*]*[*]+([^/*][^*]*[*]+)*/" " " text "${text}")
    string(REGEX REPLACE "[ \t\r\n]+" " " text "${text}")
    string(APPEND all "${text}")
  endforeach()
  string(SHA256 hash "${all}")
  string(SUBSTRING "${hash}" 0 16 hash)
  set(${result} "0x${hash}ULL" PARENT_SCOPE)
endfunction()
